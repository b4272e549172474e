"""Everything that a privacy claim rests on."""
