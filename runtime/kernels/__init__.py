"""The kernels: functions of a row's address and the scratch memory's address, compiled, integers only."""
