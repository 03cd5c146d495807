"""A cut in tokens in a real browser: typed in the sidebar, in the address, in a link, and beside another cut."""

from playwright.sync_api import Browser, expect

from benchmarks.serving import Server
from tests.dashboard.browsing import Complaints, open_page, settled


def test_a_cut_in_tokens_is_typed_kept_in_the_link_and_left_again(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/compare?beside=%CE%B1+0.5&beside=PPO", complaints)
    settled(page)
    expect(page.get_by_text("GRPO, α = 0.5").first).to_be_visible()
    page.get_by_role("button", name="In tokens").click()
    page.get_by_role("spinbutton", name="First tokens").fill("4")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This comparison has not been computed yet.")).to_be_visible()
    assert "alpha=4+tokens" in page.url
    page.reload()
    settled(page)
    expect(page.get_by_role("radio", name="4 tokens")).to_be_checked()
    page.get_by_role("radio", name="0.1", exact=True).click()
    expect(page.get_by_text("first answer token (α = 0.1)")).to_be_visible()
    assert "alpha=0.1" in page.url
    assert not complaints
