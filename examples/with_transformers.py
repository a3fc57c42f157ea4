"""Hugging Face Trainer: python examples/with_transformers.py --data mnist-5k"""

import argparse
import tempfile

import torch
import transformers

import toughen

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="mnist-5k", help="a folder of images of one size, or a data set's name")
parser.add_argument("--images", type=int, default=3600, help="train on so many of them")
parser.add_argument("--epochs", type=int, default=5)
given = parser.parse_args()


class RobustTrainer(transformers.Trainer):
    method: toughen.methods.Method

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.method.progress = self.state.global_step / self.state.max_steps  # for ramps
        batch = toughen.Batch(index=inputs["index"])
        step = self.method(model, inputs["pixel_values"], inputs["labels"], batch)
        return (step.loss, {"logits": step.logits}) if return_outputs else step.loss


transformers.set_seed(0)
try:
    data = toughen.data.load(given.data)
except (OSError, ValueError) as error:
    parser.error(str(error))
train = data.train.take(torch.randperm(len(data.train))[: given.images])
x, y = train.images.float() / 255, train.labels
rows = [{"pixel_values": x[i], "labels": y[i], "index": torch.tensor(i)} for i in range(len(x))]
config = transformers.ResNetConfig(
    num_channels=data.shape[0], embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic",
    num_labels=len(data.classes),
)  # fmt: skip
model = transformers.ResNetForImageClassification(config)

with tempfile.TemporaryDirectory() as folder:
    settings = transformers.TrainingArguments(
        folder, num_train_epochs=given.epochs, per_device_train_batch_size=64, learning_rate=5e-3, save_strategy="no",
        report_to="none", remove_unused_columns=False, disable_tqdm=True, logging_steps=20,
    )  # fmt: skip
    trainer = RobustTrainer(model, settings, train_dataset=rows)
    trainer.method = toughen.methods.FBF(eps=0.05)
    trainer.method.prepare(model, data.shape, len(data.classes), len(x))
    trainer.train()

test = data.test.take(torch.randperm(len(data.test))[:200])
result = toughen.evaluate(model.eval().cpu(), test, eps=0.05, attacks=["fgsm", "pgd-20"], verdict=False, details=False)
print(f"clean {result['clean_accuracy']:.3f}, robust {result['robust_accuracy']:.3f}")
