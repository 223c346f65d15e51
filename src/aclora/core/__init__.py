"""What every room stands on: errors, files, pictures, parameters, and the contracts of methods and models."""
