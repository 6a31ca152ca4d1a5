"""The parts of the contracts: `adapter` of `AdapterContract`, `manager` of `ManagerContract`."""
