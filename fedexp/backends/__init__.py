"""Where clients run: Ray, this process, or Flower's Simulation Runtime."""
