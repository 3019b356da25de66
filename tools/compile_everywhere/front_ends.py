def run_front_ends(folder, shaders, jobs): return []
