import optax


def make(learning_rate):
    return optax.chain(optax.clip(1.0), optax.sgd(learning_rate, momentum=0.5))
