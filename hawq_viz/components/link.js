// Copies the address of the page; where the clipboard is refused, shows it selected, to copy by hand.
const SECONDS = 3;  // that it says so

export default function ({ parentElement }) {
  const button = parentElement.querySelector('button');
  const field = parentElement.querySelector('input');
  const said = parentElement.querySelector('[role=status]');
  button.onclick = async () => {
    clearTimeout(button.timer);
    try {
      await navigator.clipboard.writeText(location.href);
      field.hidden = true;
      said.textContent = 'Copied.';
      button.timer = setTimeout(() => { said.textContent = ''; }, 1000 * SECONDS);
    } catch {  // no rights, or no clipboard at all
      Object.assign(field, { hidden: false, value: location.href });
      field.select();
      said.textContent = 'Copy it from here.';
    }
  };
}
