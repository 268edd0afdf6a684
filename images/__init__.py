"""The project's container images: what they are made from, and what builds them."""
