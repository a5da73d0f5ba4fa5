"""What a recipe reports: scores with intervals, dense beside compressed, lines of text, plots."""
