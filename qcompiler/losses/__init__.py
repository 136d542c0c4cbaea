"""How far outputs are from those of the float network: the losses that choices are judged by."""
