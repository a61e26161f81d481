"""What the recipes in packaging/ share: running tools, and our own distributions with what they need."""
