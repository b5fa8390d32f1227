"""The science of entropy: laws, theory, comparisons; numpy and scipy under a thin layer of I/O."""
