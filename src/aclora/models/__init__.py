"""One file for each family of text-to-image models, and sampling."""
