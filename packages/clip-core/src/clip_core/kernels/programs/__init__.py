"""Triton's programs, both directions of each, with the functions that launch them. Imported only where one is run.

Which is run where is said in `dispatch`; the operations that the rest sees are beside this folder.
"""
