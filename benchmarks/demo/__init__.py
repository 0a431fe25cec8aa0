"""`make demo`: a site of several nodes, real files, a node killed and wiped under load, and the proof that nothing
was lost. `story.py` is what happens, `clients.py` what S3 clients do, `screen.py` what is shown meanwhile."""
