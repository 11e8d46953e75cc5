"""What a model does in plain PyTorch on some machine, as a file that others compare with.

Nothing here imports OpenNPU, its compiler or its runtime: the folder runs on any machine with PyTorch
and transformers, also alone (`python -m baseline record …` beside it).
"""
