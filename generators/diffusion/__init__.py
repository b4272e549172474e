"""What the diffusion methods share: networks, denoisers, objectives, samplers."""
