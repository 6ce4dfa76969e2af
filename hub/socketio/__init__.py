"""python-socketio's server on the hub's Engine.IO server. Its faults are corrected here and nowhere else."""
