"""Hugging Face accelerate: accelerate launch examples/with_accelerate.py --data mnist-5k"""

import argparse

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import toughen

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="mnist-5k", help="a folder of images of one size, or a data set's name")
parser.add_argument("--images", type=int, default=3600, help="train on so many of them")
parser.add_argument("--epochs", type=int, default=5)
given = parser.parse_args()

torch.manual_seed(0)
accelerator = Accelerator()
try:
    data = toughen.data.load(given.data)
except (OSError, ValueError) as error:
    parser.error(str(error))
train = data.train.take(torch.randperm(len(data.train))[: given.images])
x, y = train.images.float() / 255, train.labels
loader = DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_size=64, shuffle=True)
model = toughen.models.create("fbf-mnist-cnn", len(data.classes), data.shape)

method = toughen.methods.FBF(eps=0.1)  # in place of torch.nn.CrossEntropyLoss()
method.prepare(model, data.shape, len(data.classes), len(x))
method.to(accelerator.device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

for epoch in range(given.epochs):
    model.train()
    for images, labels, index in loader:
        step = method(model, images, labels, toughen.Batch(index=index))  # in place of loss(model(images), labels)
        optimizer.zero_grad()
        accelerator.backward(step.loss)
        optimizer.step()
        method.after_step(model)
    accelerator.print(f"epoch {epoch + 1}: loss {step.loss.item():.3f}")

if accelerator.is_main_process:
    test = data.test.take(torch.randperm(len(data.test))[:200])
    net = accelerator.unwrap_model(model).eval().cpu()
    result = toughen.evaluate(net, test, eps=0.1, attacks=["fgsm", "pgd-20"], verdict=False, details=False)
    print(f"clean {result['clean_accuracy']:.3f}, robust {result['robust_accuracy']:.3f}")
