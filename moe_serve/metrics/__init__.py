"""Every metric of the product: names, types, labels and help. Standard library only."""
