"""The embed worker, the maintenance jobs and the ticker: thin processes around the steps in `memory`."""
