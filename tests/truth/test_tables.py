import pytest

from poolwise import tables
from poolwise.errors import RequestError
from poolwise.metrics import kendall_tau_a


def test_published_table():
    table = tables.load("resnet20-cifar10-published")
    assert len(table.space) == 36
    assert len(table.columns) == 10
    accuracy = dict(zip(map(str, table.space), table.column("standalone_mean"), strict=True))
    assert (accuracy["4-3-3"], accuracy["7-1-2"], max(accuracy, key=accuracy.get)) == (90.52, 92.01, "7-1-2")


def test_published_agreement():
    table = tables.load("resnet20-cifar10-published")
    truth = table.column("standalone_mean")
    found = [round(kendall_tau_a(table.column(f"supernets{m}_mean"), truth), 2) for m in (1, 2, 4, 8)]
    assert found == [0.15, 0.31, 0.60, 0.53]  # 0.146, told as 0.14 where the figures are told cut off


def test_wrong_names():
    with pytest.raises(RequestError, match="did you mean 'resnet20-cifar10-published'"):
        tables.load("resnet20-cifar10")
    with pytest.raises(RequestError, match="Columns: standalone_mean"):
        tables.load("resnet20-cifar10-published").column("standalone")
