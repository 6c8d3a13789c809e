//! Frame layouts: private binary protocols described in configuration.
