def install(folder, roots, front_ends): pass
