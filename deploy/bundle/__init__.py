"""A folder that an integrator can take to a device: model, description, checks, instructions."""
