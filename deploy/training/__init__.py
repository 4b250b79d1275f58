"""The recipe: any variant, from a backbone or a checkpoint, on data in VOC's layout."""
