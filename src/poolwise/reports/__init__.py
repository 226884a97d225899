"""Reports: create figures and a self-contained HTML page from the files of a run."""
