"""Everything that draws: the shell around the pages, figures, widgets and theme."""
