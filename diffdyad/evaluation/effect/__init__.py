"""The context-effect protocol: does the previous turn change the motion, in the right direction, by more than any
turn would? One module per step; `docs/context.md` has the reasons."""
