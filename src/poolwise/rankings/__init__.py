"""Rankings: score all configurations on the SuperNets, run proxy trainings, and combine both into one order."""
