"""Two tiny GPT-OSS models that have learned six exact tasks: accuracy is a real number here."""
