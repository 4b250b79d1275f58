"""More than one machine: work over images or layers, on the workers of a Dask cluster.

A stage describes its work as a :class:`~deploy.cluster.jobs.Job` that a worker opens once and then
asks item after item; :meth:`~deploy.cluster.client.Cluster.map` brings the results back. Without a
cluster a stage does the same work itself, in its own process.
"""
