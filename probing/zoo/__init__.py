"""The small family of models that ships in data/zoo/, and the code that trained it.

`task` says what the models do, `recipes` how each was made, `train` and `ppo` make them, `evaluate` measures them,
`cards` writes what a reader of a model's folder should know. Training needs requirements-zoo.txt; evaluating does not.
"""
