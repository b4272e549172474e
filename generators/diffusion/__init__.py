"""What the diffusion methods share: model, networks, loss, samplers, training, presets."""
