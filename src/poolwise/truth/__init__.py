"""What is so: stand-alone trainings, tables of them, and the statistics that judge."""
