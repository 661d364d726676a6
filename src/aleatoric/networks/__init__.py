"""Networks: blocks are the parts, nets compose them."""
