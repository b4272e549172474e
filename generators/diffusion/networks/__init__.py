"""Networks of diffusion models: U-Nets of images at a noise level, of a class."""
