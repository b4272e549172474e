"""Published claims, and what our own records say of them. Torch is not needed."""
