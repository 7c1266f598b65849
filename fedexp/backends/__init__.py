"""Where clients run: a module per choice of ``backend=``, each with a function ``run``."""
