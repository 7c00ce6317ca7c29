"""
The nouns of chanproxy, as interfaces.

Imports nothing else of the package; everything else may import this.
"""

from chanproxy.interfaces.channels import (
    Batch,
    ChannelBroken,
    ChannelClosed,
    IByteChannel,
    IChannel,
    IChannelUser,
    MessageRefused,
)
from chanproxy.interfaces.freezers import (
    FreezeInterrupted,
    FreezerError,
    FreezerNotReady,
    IExclusiveFreezer,
    IFreezer,
    IFreezerFactory,
    ISlicedFreezer,
    IThawedByDescriptor,
)
from chanproxy.interfaces.plugins import PluginError
from chanproxy.interfaces.policies import IHandledPolicy, IHandledPolicyFactory, IWakeWatcher
from chanproxy.interfaces.reactors import (
    AnyReactor,
    ChanproxyReactor,
    PollingReactor,
    expectReactor,
)

__all__ = [
    "AnyReactor",
    "Batch",
    "ChannelBroken",
    "ChannelClosed",
    "ChanproxyReactor",
    "FreezeInterrupted",
    "FreezerError",
    "FreezerNotReady",
    "IByteChannel",
    "IChannel",
    "IChannelUser",
    "IExclusiveFreezer",
    "IFreezer",
    "IFreezerFactory",
    "IHandledPolicy",
    "IHandledPolicyFactory",
    "ISlicedFreezer",
    "IThawedByDescriptor",
    "IWakeWatcher",
    "MessageRefused",
    "PluginError",
    "PollingReactor",
    "expectReactor",
]
