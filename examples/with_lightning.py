"""PyTorch Lightning: python examples/with_lightning.py --data mnist-5k"""

import argparse

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import toughen

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="mnist-5k", help="a folder of images of one size, or a data set's name")
parser.add_argument("--images", type=int, default=3600, help="train on so many of them")
parser.add_argument("--epochs", type=int, default=5)
given = parser.parse_args()


class Robust(lightning.LightningModule):
    def __init__(self, net: torch.nn.Module, method: toughen.methods.Method) -> None:
        super().__init__()
        self.net, self.method = net, method  # the method is a module: what it remembers is in the checkpoints

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        images, labels, index = batch
        self.method.progress = self.global_step / self.trainer.estimated_stepping_batches  # for ramps
        return self.method(self.net, images, labels, toughen.Batch(index=index)).loss

    def on_train_batch_end(self, *given: object) -> None:
        self.method.after_step(self.net)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


lightning.seed_everything(0, verbose=False)
try:
    data = toughen.data.load(given.data)
except (OSError, ValueError) as error:
    parser.error(str(error))
train = data.train.take(torch.randperm(len(data.train))[: given.images])
x, y = train.images.float() / 255, train.labels
loader = DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_size=64, shuffle=True)

method = toughen.methods.NuAT(eps=0.1, lam=1.0)
module = Robust(toughen.models.create("fbf-mnist-cnn", len(data.classes), data.shape), method)
method.prepare(module.net, data.shape, len(data.classes), len(x))
trainer = lightning.Trainer(max_epochs=given.epochs, logger=False, enable_checkpointing=False, accelerator="auto")
trainer.fit(module, loader)

test = data.test.take(torch.randperm(len(data.test))[:200])
result = toughen.evaluate(
    module.net.eval().cpu(), test, eps=0.1, attacks=["fgsm", "pgd-20"], verdict=False, details=False
)
print(f"clean {result['clean_accuracy']:.3f}, robust {result['robust_accuracy']:.3f}")
