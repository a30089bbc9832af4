from harness.case import FAMILIES, InteropCase, each
from harness.chain import Chain, Shape
from harness.echo import ping
from harness.stream import stream

class NestingTests(InteropCase):
    @each(entry=FAMILIES, exit=FAMILIES)
    def test_basic(self, entry, exit):
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape((entry, exit)))
        chain.start_client()
        chain.handshake()
        for a, b in ((chain.client, chain.exit), (chain.exit, chain.client)):
            for address in (b.inner4, b.inner6):
                self.assertEqual(ping(a, address).received, 3)
                stream(a, b, address, 4 << 20)

    @each(exit=FAMILIES, mtu=(576, 1280))
    def test_frag(self, exit, mtu):
        if mtu == 576 and exit == 6: self.skipTest("no")
        import time
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape((4, exit), (1500, mtu)))
        chain.start_client()
        chain.handshake()
        for a, b in ((chain.exit, chain.client),(chain.client, chain.exit)):
            for address in (b.inner4, b.inner6):
                self.assertEqual(ping(a, address, size=1300).received, 3)
                t=time.time(); stream(a, b, address, 4 << 20); print(a.role, address, time.time()-t)
        print(chain.client.reassembled)
    def test_bad(self):
        import time
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape((4, 4), (1500, 1280), bad=(1,0)))
        chain.start_client()
        chain.handshake()
        for l in (0,1): chain.bad_links[l].worsen(0.01,0.003)
        for a, b in ((chain.exit, chain.client),(chain.client, chain.exit)):
            t=time.time(); stream(a, b, b.inner4, 1 << 20); print(a.role, time.time()-t)
        for l in (0,1): print(chain.bad_links[l].finish())
