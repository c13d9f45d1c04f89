"""Pure diffusion maths: schedules, the forward process, samplers and keyed noise."""
