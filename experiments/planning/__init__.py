"""What `experiments.plan` compiles, and how it shows what it found."""
