"""Commands that say what there is: exchanges, symbols, datasets."""
