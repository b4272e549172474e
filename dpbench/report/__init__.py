"""From records to tables. Reads records only: no method and no evaluator is ever imported."""
