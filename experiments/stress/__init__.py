"""Commands that test robustness: killed runs, killed services, hostile text."""
