"""How fast the pipeline is, beside what the machine could do at most."""
