"""What has nothing to do with adversarial training, and no dependency does."""
