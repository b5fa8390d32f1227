"""Problems from files and published data sets."""
