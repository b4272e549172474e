"""Records of runs and of scores, their JSON schemas, and the verification of privacy claims."""
