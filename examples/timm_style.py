"""timm's net, optimizer, schedule and average: python examples/timm_style.py --data mnist-5k"""

import argparse

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader, TensorDataset

import toughen

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="mnist-5k", help="a folder of images of one size, or a data set's name")
parser.add_argument("--images", type=int, default=3600, help="train on so many of them")
parser.add_argument("--epochs", type=int, default=5)
given = parser.parse_args()

torch.manual_seed(0)
try:
    data = toughen.data.load(given.data)
except (OSError, ValueError) as error:
    parser.error(str(error))
train = data.train.take(torch.randperm(len(data.train))[: given.images])
x, y = train.images.float() / 255, train.labels
loader = DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_size=64, shuffle=True)
net = timm.create_model("mobilenetv3_small_050", num_classes=len(data.classes), in_chans=data.shape[0])
mean, std = data.statistics()
model = torch.nn.Sequential(toughen.models.Normalize(mean, std), net)  # in place of a Normalize transform

method = toughen.methods.NuAT(eps=0.03, lam=1.0)  # in place of timm.loss.LabelSmoothingCrossEntropy()
method.prepare(model, data.shape, len(data.classes), len(x))
optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.05)
schedule = CosineLRScheduler(optimizer, t_initial=given.epochs, warmup_t=1, warmup_lr_init=1e-4)
average = ModelEmaV3(model, decay=0.99)

for epoch in range(given.epochs):
    model.train()
    schedule.step(epoch)
    for images, labels, index in loader:
        step = method(model, images, labels, toughen.Batch(index=index))  # in place of loss(model(images), labels)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step(model)
        average.update(model)
    print(f"epoch {epoch + 1}: loss {step.loss.item():.3f}")

test = data.test.take(torch.randperm(len(data.test))[:200])
result = toughen.evaluate(average.module.eval(), test, eps=0.03, attacks=["pgd-10"], verdict=False, details=False)
print(f"clean {result['clean_accuracy']:.3f}, robust {result['robust_accuracy']:.3f}")
